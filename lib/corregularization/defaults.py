"""Defaults of notebook 03's parameters outside its parameters cell.

Profiles and `PARAMS` set these by name, like those of the cell; in an open notebook, use `more`.
The values are those of the *quick* profile.
"""

learning_rate = 0.004  # of AdamW
small_count = 640  # training images of all experiments but the first; 0 takes all
small_epochs = 5  # epochs of these experiments
reduced_share = 0.25  # of small_count, in the condition "little data"
label_noise = 0.4  # share of random labels in the condition "label noise"
tuning_count = 400  # training images on which strengths are tuned, a fifth of them held out; 0 takes all
tuning_epochs = 3  # of each strength tried
resnet_epochs = 0  # of ResNet-18 on all images; 0 leaves it out, as few of them end near chance
packing_ratios = [1.0, 2.0, 4.0]  # vectors per dimension; times d, multiples of the four groups
packing_dimension = 32  # d of the packed unit vectors
packing_steps = 100  # of Adam on the whole loss; groups take more, for as many pairs
packing_starts = 3  # random starts of each packing
cost_models = ["vanilla"]  # "vanilla", "resnet18"; the latter takes a minute more
cost_rounds = 3  # repetitions when costs are timed
imagenet = []  # "AlexNet", "VGG16": with torchvision's weights in torch's hub cache (figures 312, 314 and 315)
imagenet_shares = [0.0, 0.1, 0.3]  # of VGG16's filters removed in figure 315
vae_count = 4000  # scenes that the VAEs of section 3.8 are trained on
vae_epochs = 8  # of each of these; 0 leaves the section out
vae_beta = 4.0  # weight of the divergence in the arms called beta-VAE
