// A button that records: the browser's MediaRecorder, whose file goes to Python as bytes.
export default {
  render({ model, el }) {
    const button = document.createElement("button");
    button.className = "jupyter-button widget-button";
    const label = (text) => (button.textContent = text);
    label("Microphone");
    el.appendChild(button);
    let recorder = null;

    async function start() {
      if (!navigator.mediaDevices || !window.MediaRecorder)
        return label("No microphone: open this page by https or on localhost");
      let stream;
      try {
        stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      } catch (error) {
        return label(`No microphone: ${error.message}`);
      }
      const parts = [];
      recorder = new MediaRecorder(stream);
      const timer = setTimeout(() => recorder && recorder.stop(), 1000 * model.get("longest"));
      recorder.ondataavailable = (event) => parts.push(event.data);
      recorder.onstop = async () => {
        clearTimeout(timer);
        stream.getTracks().forEach((track) => track.stop());
        recorder = null;
        label("Microphone");
        const content = await new Blob(parts).arrayBuffer();
        model.set("recording", new DataView(content));
        model.save_changes();
      };
      recorder.start();
      label("Stop");
    }

    button.onclick = () => (recorder ? recorder.stop() : start());
    return () => recorder && recorder.stop();
  },
};
