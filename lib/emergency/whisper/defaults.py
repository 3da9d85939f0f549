"""Defaults of notebook 04's parameters outside its parameters cell.

Profiles and `PARAMS` set these by name, like those of the cell; in an open notebook, use `more`.
The values are those of the *quick* profile.
"""

d_model = 64  # width of a Whisper from scratch
encoder_layers = 2  # of a Whisper from scratch
decoder_layers = 2  # of a Whisper from scratch
head_epochs = 12  # of its head alone, on the frozen encoder, before all else; 0 for none
head_rate = 0.001  # learning rate of its head, then and afterwards
trained_rate = 0.1  # learning rate of its other weights afterwards, as a share of the head's
layer_decay = 0.8  # factor of the learning rate from each of its encoder's layers to the one below
heads = 2  # attention heads of a Whisper from scratch
stack = 4  # encoder positions of 20 ms joined into one frame that is classified
hidden = 256  # units of the MLP head
batch_size = 32  # clips per step
learning_rate = 0.004  # peak of the one-cycle schedule, of a Whisper from scratch
equaliser = 6.0  # dB: strength of a random equaliser that varies the microphone at every step
time_mask = 0.0  # SpecAugment: largest share of frames that a mask hides
frequency_mask = 0.0  # SpecAugment: largest share of mel bands that a mask hides
ratio_epochs = 2  # of each ratio's training and those of figure 46 (and 417, from scratch); 0: heads, no figure 46
trial_count = 0  # clips that these train on, the first of all (not in table 417); 0: all
transfer = ""  # another data set: a model is trained on each of the two and judged on both (tab417); "": none
curve = []  # clips of each point of the learning curves of a trained Whisper (fig417); []: none
scratch_epochs = 16  # of the Whisper from scratch in that comparison
latest = 2.0  # seconds: last onset in figure 46
explained_count = 48  # clips on which explanations are measured
flip_steps = 10  # points of each flipping curve
