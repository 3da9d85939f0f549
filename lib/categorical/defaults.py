"""Defaults of the parameters of notebook 02 that are not in its parameters cell.

Profiles and `PARAMS` set them by name, like those in the cell; in an open notebook, use `more`.
The values are those of the *quick* profile.
"""

smallest_crop = 0.4  # smallest share of an image's area in a view
hue = 0.5  # largest hue shift of a view, in turns of the colour circle: 0.5 can turn any colour into any other
optimizer = "sgd"  # "muon" learns as much in a third of the steps, at a learning_rate of about 0.03
learning_rate = 0.2  # for the batch size in the parameters cell
score_every = 4  # epochs between two points of the training curves
queue = 500  # number of negatives in the queue, codes or embeddings
momentum = 0.9  # of the momentum encoder that fills the queue, and of the teacher in CARP; use 0.99 for long runs
fit_count = 0  # training images that k-means, kNN and the linear classifier are fitted on; 0 uses all
other_counts = [5, 20]  # numbers of clusters besides the number of classes
code_temperatures = [0.3]  # several: the best is chosen for each arm; one: used untuned, except by published losses
embedding_temperatures = []  # likewise of losses on embeddings; empty: 0.5 for NT-Xent, 0.1 for MoCo
tuning_epochs = 0  # epochs of each tuning run; 0: as many as the main comparison
tuning_count = 0  # training images for tuning, up to a fifth of them held out; 0: train_count
ablation_epochs = 5  # epochs of the ablation and of the runs over L and K; 0 skips both
ablation_count = 500  # number of training images of these runs; 0 uses all
size_positions = [1, 4, 16]  # values of L to compare
size_categories = [10]  # values of K to compare
frozen = ""  # features on which heads learn codes: "" from the NT-Xent arm, "vgg16" from VGG16 trained on ImageNet
head_epochs = 40  # epochs of each head on frozen features; 0: no heads, and search on NT-Xent's embedding alone
head_categories = 16  # K of the heads: 2, 4, 16 or 256, so that positions fill whole bytes
head_neighbours = 10  # nearest neighbours from which an image's positive is drawn
search_sizes = [4, 8, 16, 32, 64]  # bytes per stored image; [] skips search and heads
search_queries = 500  # test images used as queries; 0 uses all
cost_rounds = 2  # repetitions for timing costs; 0 skips the measurement
