"""Loaders that all studies share.

catalog    what data set lies where, and in which state (quick to import)
images     load_images: any image set as one uint8 tensor
shapes     the built-in images; `outlines` holds their forms
folders    image folders: listing, splitting, decoding; `cache` keeps what was decoded
official   the official archives of CIFAR-10 and CelebA, through torchvision
augment    augmentation of a batch
"""
