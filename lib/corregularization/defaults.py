"""Defaults for the parameters of notebook 03 that are not in its parameters cell.

Profiles and `PARAMS` set these by name, like those in the cell; in an open notebook, use `more`.
The values are those of the *quick* profile.
"""

size = 0  # pixels; images are cropped to a square and resized to this side; 0 takes them as they are
learning_rate = 0.004  # of AdamW
small_count = 640  # training images of all experiments but the first; 0: all
small_epochs = 5  # epochs of these experiments
reduced_share = 0.25  # of small_count, in the conditions "little data", "label noise" and "no augmentation"
reduced_epochs = 25  # epochs of these conditions, enough to memorise so few images
label_noise = 0.4  # share of labels replaced by another class in the condition "label noise"
tuning_count = 800  # training images for tuning strengths, a fifth held out; 0: all. The rest should equal small_count
tuning_epochs = 5  # epochs of tuning, for as many steps as in small_epochs: the best strength depends on their number
resnet_epochs = 0  # epochs of ResNet-18 on all images; 0: left out, as a few epochs leave it near chance
packing_ratios = [1.0, 2.0, 4.0]  # n/d, vectors per dimension; n has to be a multiple of four, the number of groups
packing_dimension = 32  # d of the packed unit vectors
packing_steps = 100  # Adam steps on the whole loss; grouped losses take more, to cover as many pairs
packing_starts = 3  # random starts of each packing
cost_models = ["vanilla"]  # "vanilla", "resnet18"; the latter adds a minute
cost_rounds = 3  # repetitions of each timing
imagenet = []  # "AlexNet", "VGG16"; need torchvision's weights in torch's hub cache (figures 312, 314 and 315)
imagenet_shares = [0.0, 0.1, 0.3]  # shares of VGG16's filters removed in figure 315
vae_count = 4000  # training scenes of the VAEs in section 3.8
vae_epochs = 8  # epochs of each VAE; 0: the section is left out
vae_beta = 4.0  # weight of the KL divergence in the arms called beta-VAE
