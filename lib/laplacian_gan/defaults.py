"""Defaults of notebook 01's parameters outside its parameters cell.

Profiles and `PARAMS` set these by name, like those of the cell; in an open notebook, use `more`.
The values are those of the *quick* profile.
"""

more_datasets = []  # the first comparison is repeated on these
control_width = 16  # channels, in all experiments but the first
control_epochs = 2  # of all experiments but the first
ema = 0.99  # decay of the averaged generator
levels = [4, 8, 16, 32]  # pixels: resolutions at which the pyramid is given
noise_strengths = [1.0]  # standard deviation of noise added to the levels (of unit variance), an arm each
sign_epochs = 0  # of trainings that follow the correlation with the source, `control_width` wide; 0 leaves them out
sign_count = 8000  # their training images; 0 takes all
sign_seeds = 2  # trainings of each arm there, each with another seed; 0 leaves them out
second_extractor = ""  # "domain", "vgg16": distances in its features as well, to see whether both order arms alike
sample_count = 500  # generated images per model, against as many real ones
lpips_pairs = 200  # pairs of images behind each LPIPS
cost_rounds = 2  # repetitions when costs are timed; 0 leaves them out
