"""Data loaders shared by all studies.

catalog    where each data set lies, and in which state (quick to import)
images     load_images: any image set as one uint8 tensor
audio      load_sounds: any set of recordings as one int16 tensor; `decoding` reads one file
common     code shared by these two: arguments, subsets, archives, threads
shapes     the built-in images; `outlines` holds their outlines
folders    folders of images or sounds: listing and splitting; `cache` stores decoded files
official   the official archives of CIFAR-10 and CelebA, through torchvision
augment    augmentation of a batch
needs      the minimum of data for each notebook
"""
