"""Defaults of the parameters of notebook 05 that are not in its parameters cell.

Profiles and `PARAMS` set them by name, like those in the cell; in an open notebook, use `more`.
The values are those of the *quick* profile.
"""

batch_size = 16  # clips per step
learning_rate = 0.006  # peak of the schedule
mixup = 0.0  # alpha of mixup; 0: none
compare_epochs = 6  # of each of the seven variants on each fold
score_every = 2  # epochs between two points of their accuracy curves
cue_epochs = 6  # of the network trained with a planted shortcut
explained_count = 48  # clips on which explanations are evaluated
flip_steps = 10  # steps of each flipping curve
