"""Defaults of the parameters of notebook 01 that are not in its parameters cell.

Profiles and `PARAMS` set them by name, like those in the cell; in an open notebook, use `more`.
The values are those of the *quick* profile.
"""

more_datasets = []  # data sets on which the first comparison is repeated
control_width = 16  # channels of the last feature map in all experiments except the first
control_epochs = 2  # epochs of all experiments except the first, unless set below
ema = 0.99  # decay of the averaged generator
levels = [4, 8, 16, 32]  # pixels: resolutions at which the generator receives pyramid bands
noise_strengths = [1.0]  # standard deviations of noise added to the unit-variance bands, one arm each
long_mixtures = False  # arms with bands of several images have the budget of the first comparison, not of the controls
sign_epochs = 0  # epochs of the runs that track the correlation with the source, at `control_width`; 0 skips them
sign_count = 8000  # number of training images of these runs; 0 uses all
sign_seeds = 2  # number of these runs per arm, each with a different seed; 0 skips them
few_count = 0  # training images of the comparison of augmentations on few images; 0 skips it
second_extractor = ""  # "domain" or "vgg16": also compute distances in its features, to compare the rankings of arms
sample_count = 500  # generated images per model, compared with as many real images
lpips_pairs = 200  # image pairs per LPIPS value
cost_rounds = 2  # repetitions for timing costs; 0 skips the measurement
