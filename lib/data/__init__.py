"""Loaders that all studies share.

catalog    what data set lies where, and in which state (quick to import)
images     load_images: any image set as one uint8 tensor
audio      load_sounds: any set of recordings as one int16 tensor; `decoding` reads one file
common     what these two share: arguments, subsets, archives, threads
shapes     the built-in images; `outlines` holds their forms
folders    folders of images or sounds: listing and splitting; `cache` keeps what was decoded
official   the official archives of CIFAR-10 and CelebA, through torchvision
augment    augmentation of a batch
needs      what each notebook needs of its data at the least
"""
