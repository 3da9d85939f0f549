"""Defaults of the parameters of notebook 04 that are not in its parameters cell.

Profiles and `PARAMS` set them by name, like those in the cell; in an open notebook, use `more`.
The values are those of the *quick* profile.
"""

d_model = 64  # width of a Whisper trained from scratch
encoder_layers = 2  # of a Whisper trained from scratch
decoder_layers = 2  # of a Whisper trained from scratch
head_epochs = 12  # with a checkpoint: epochs of the head alone on the frozen encoder, before fine-tuning; 0: none
head_rate = 0.001  # with a checkpoint: learning rate of the head when trained alone; a tenth of it in fine-tuning
trained_rate = 0.05  # learning rate of the pretrained weights in fine-tuning, as a share of head_rate
adapters = 0  # with a checkpoint: rank of low-rank adapters, fine-tuned instead of its weights; 0: no adapters
layer_decay = 1.0  # factor of the learning rate from each pretrained encoder layer to the one below
heads = 2  # attention heads of a Whisper trained from scratch
stack = 4  # encoder positions of 20 ms concatenated into each frame that is classified
hidden = 256  # units of the MLP head
batch_size = 32  # clips per step
learning_rate = 0.004  # peak of the one-cycle schedule for training from scratch
equaliser = 6.0  # dB: strength of the random equaliser that simulates another microphone at every step
time_mask = 0.0  # SpecAugment: largest share of frames in one mask
frequency_mask = 0.0  # SpecAugment: largest share of mel bands in one mask
ratio_epochs = 2  # epochs for each ratio and for figure 46 (and table 417, from scratch); 0: heads only, no figure 46
trial_count = 0  # these trainings use the first trial_count clips of the training set (not in table 417); 0: all
transfer = ""  # a second data set: a model is trained on each of the two and tested on both (table 417); "": none
curve = []  # numbers of training clips in the learning curves of a checkpoint (figure 417); []: none
scratch_epochs = 16  # of the Whisper trained from scratch in that comparison
latest = 2.0  # seconds: last onset in figure 46
explained_count = 48  # clips on which explanations are evaluated
flip_steps = 10  # steps of each flipping curve
