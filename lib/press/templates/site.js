// Enlarging: every picture is a link to itself; here it opens in a dialog instead, where arrow keys lead on.
const dialog = document.querySelector("dialog");
const stage = dialog.querySelector(".stage");
const large = stage.querySelector("img");
const links = [...document.querySelectorAll("a.zoom")];
let shown = 0;

function show(index) {
  shown = (index + links.length) % links.length;
  const picture = links[shown].querySelector("img");
  stage.classList.remove("full");
  large.src = links[shown].href;
  large.alt = picture.alt;
  dialog.querySelector("strong").textContent = links[shown].dataset.title;
  dialog.querySelector("p").textContent = picture.alt;
  if (dialog.open) return;
  dialog.showModal();
  dialog.querySelector(".close").focus();
}

links.forEach((link, index) => link.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  show(index);
}));
dialog.querySelector(".previous").addEventListener("click", () => show(shown - 1));
dialog.querySelector(".next").addEventListener("click", () => show(shown + 1));
dialog.querySelector(".close").addEventListener("click", () => dialog.close());
large.addEventListener("click", () => stage.classList.toggle("full"));
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") show(shown - 1);
  if (event.key === "ArrowRight") show(shown + 1);
});
dialog.addEventListener("close", () => links[shown].focus());

// Sorting: by numbers where a field has one, else by text; what is missing comes last either way.
function compare(first, second, up) {
  if (first === "" || second === "") return (first === "") - (second === "");
  const numbers = [Number(first), Number(second)];
  const order = numbers.some(Number.isNaN)
    ? first.localeCompare(second, undefined, { numeric: true })
    : numbers[0] < numbers[1] ? -1 : Number(numbers[0] > numbers[1]);
  return up ? order : -order;
}

document.querySelectorAll("table.sortable").forEach((table) => {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.value;
    const rows = [...table.tBodies[0].rows].sort((a, b) => compare(value(a), value(b), up));
    table.tBodies[0].append(...rows);
  }));
});

// Finding: entries that hold all words, in their ids, captions and tables; it needs this script, so only now it shows.
const find = document.querySelector(".find");
const entries = [...document.querySelectorAll(".entry")].map((entry) => [entry, entry.textContent.toLowerCase()]);
find.hidden = false;
find.querySelector("input").addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  entries.forEach(([entry, text]) => { entry.hidden = !words.every((word) => text.includes(word)); });
  document.querySelectorAll("main section").forEach((section) => {
    const own = [...section.querySelectorAll(".entry")];
    section.hidden = words.length > 0 && own.every((entry) => entry.hidden);
  });
  const found = entries.filter(([entry]) => !entry.hidden).length;
  find.querySelector("[role=status]").textContent = words.length ? `${found} of ${entries.length}` : "";
});
