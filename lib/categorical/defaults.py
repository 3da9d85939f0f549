"""Defaults of notebook 02's parameters outside its parameters cell.

Profiles and `PARAMS` set these by name, like those of the cell; in an open notebook, use `more`.
The values are those of the *quick* profile.
"""

smallest_crop = 0.4  # smallest share of an image's area in a view
hue = 0.5  # largest shift of hue between views, in turns of the colour circle: 0.5 can turn any colour into any other
optimizer = "sgd"  # "muon" learns as much in a third of the steps, at a learning_rate of about 0.03
learning_rate = 0.2  # at the batch size of the cell
score_every = 4  # epochs between two points of the training curves
queue = 500  # negatives kept in the queue, codes or embeddings
momentum = 0.9  # of the momentum encoder that fills the queue, and of the teacher in CARP; 0.99 for long trainings
fit_count = 0  # training images that k-means, kNN and the linear classifier are fitted on; 0 takes all
other_counts = [5, 20]  # numbers of clusters besides the number of classes
code_temperatures = [0.3]  # of every arm with codes; of several, the best of each arm on a validation split
embedding_temperatures = []  # of the loss of every arm with embeddings, likewise; none: 0.5 in NT-Xent, 0.1 in MoCo
tuning_epochs = 3  # of each of these trainings, on as many images as the ablation; 0 leaves the arms' own temperatures
ablation_epochs = 5  # of all experiments but the main comparison; 0 leaves them out
ablation_count = 500  # their training images; 0 takes all
size_positions = [1, 4, 16]  # values of L that are compared
size_categories = [10]  # values of K that are compared
frozen = ""  # features that heads learn codes on: "" the NT-Xent arm's, "vgg16" VGG16's, trained on ImageNet
head_epochs = 40  # of each head on frozen features; 0 leaves out search and clusters of these
head_categories = 16  # K of the heads: 2, 4, 16 or 256, so that positions fill whole bytes
head_neighbours = 10  # nearest images, one of which is an image's positive
search_sizes = [4, 8, 16, 32, 64]  # bytes of a stored image
search_queries = 500  # test images that are searched for; 0 takes all
cost_rounds = 2  # repetitions when costs are timed; 0 leaves them out
