"""Defaults of notebook 05's parameters outside its parameters cell.

Profiles and `PARAMS` set these by name, like those of the cell; in an open notebook, use `more`.
The values are those of the *quick* profile.
"""

batch_size = 16  # clips per step
learning_rate = 0.006  # peak of the schedule
mixup = 0.0  # alpha of mixup; 0 for none
compare_epochs = 6  # of each of the seven variants, on each fold
score_every = 2  # epochs between two points of their curves
cue_epochs = 6  # of the network trained with a planted cue
explained_count = 48  # clips on which explanations are measured
flip_steps = 10  # points of each flipping curve
