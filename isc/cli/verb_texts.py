"""Texts of --help for each verb, before its keys; PROGRAM stands for the command as it was typed."""

TRAIN = """\
Train a copy detector on photos, without labels.

PROGRAM images=PHOTOS output=RUN_DIR [experiment=NAME] [resume=true] [validation=BENCHMARK_DIR]
    [pairs=GT.csv] [model.*, train.*, augment.*, loss.*]
torchrun --nproc_per_node=GPUS train.py …
PROGRAM task=captioning|captions --help        of captions, docs/words.md
PROGRAM task=products --help                   of products, docs/products.md

PHOTOS is a folder, a list, a .tar, a pattern as 'shards/{000..127}.tar', or several: images=[a,b], as extract.py
takes them.
RUN_DIR receives model.safetensors (what extract.py takes), checkpoint.pt (to go on from, resume=true),
config.json, log.csv, provenance.json and tensorboard/; with validation= also validation.csv and
best.safetensors, the best model so far; failures.csv where photos could not be read. docs/training.md tells more.
"""

TRAIN_EXAMPLES = """\
  PROGRAM images=photos output=runs/first
  PROGRAM images=photos output=runs/first resume=true train.steps=20000
  PROGRAM images=photos output=runs/mine experiment=finetune
  PROGRAM 'images=shards/{000..127}.tar' output=runs/shards
  PROGRAM images=photos output=runs/long experiment=isc_small validation=benchmark train.steps=20000
"""

WORDS = """\
Train on pictures and their captions: to write captions (task=captioning), or to match them (task=captions).

PROGRAM experiment=captioning_lstm|captioning_vlp|captioning_retrieval|captions_small images=PHOTOS pairs=CAPTIONS.csv
    output=FOLDER [languages=[en,zh,ar,de]] [grids=FILE.npy] [grid.*, train.*]

CAPTIONS.csv has the columns photo_id, language, split and caption; split is train, dev (to choose with), or any other
word (left out). PHOTOS are those of isc extract; a photo_id is a photo's id, or its last part.
FOLDER is what isc caption --model and isc words --model take; metrics.json holds figures of the dev split.
"""

WORDS_EXAMPLES = """\
  PROGRAM experiment=captioning_retrieval images=photos pairs=captions.csv output=captioner
  PROGRAM experiment=captioning_lstm images=photos pairs=captions.csv output=captioner grids=grids.npy
"""

PRODUCTS = """\
Train a model that tells the items of a shop apart, from photos of them and the shop's own pictures.

PROGRAM experiment=products_small images=PHOTOS pairs=LABELS.csv catalogue=SHOP output=RUN_DIR [resume=true]
    [model.*, train.*]

LABELS.csv has the columns photo_id, item_id and split; split is train, val (to judge by), or any other word (left
out). SHOP is a folder with items.csv (item_id, title, and if there are any image, kind, description) and the pictures,
or the path of such a CSV. PHOTOS are those of isc extract; a photo_id is a photo's id, or its last part.
RUN_DIR is what isc products find --model takes, and a model for every other command; docs/products.md tells more.
"""

PRODUCTS_EXAMPLES = """\
  PROGRAM experiment=products_small images=photos pairs=labels.csv catalogue=shop output=runs/shop
  PROGRAM experiment=products_small images=photos pairs=labels.csv catalogue=shop output=runs/shop resume=true
"""

EXTRACT = """\
Turn photos into descriptors.

PROGRAM images=PHOTOS output=FILE.h5 [model=NAME|RUN_DIR|FILE] [device=auto|cpu|cuda]

PHOTOS is a folder, a list (.txt: a path a line; .csv with the columns id and file), a .tar, as WebDataset's
shards are, a pattern as 'shards/{000..127}.tar', or several: images=[a,b]. An id is the photo's path below its
folder, or in its tar, without suffix.
FILE.h5 holds vectors (float32 [N, D]) and image_names. Photos that cannot be read are skipped and listed in
FILE.h5.failures.csv (strict=true: refused). Until all is done, finished blocks lie in FILE.h5.parts: the same
command goes on where one was broken off.
model=isc_small, the default, comes with the package; RUN_DIR is train.py's output; FILE a .safetensors of ours,
an .onnx file, or a published checkpoint (SSCD's *.torchvision.pt, the ISC21 winner's isc_ft_v107.pth.tar, or
URL#sha256=HEX); model=imagenet is EfficientNet-lite0 as it learned ImageNet, before any training here.
"""

EXTRACT_EXAMPLES = """\
  PROGRAM images=photos output=photos.h5
  PROGRAM images=photos output=photos.h5 model=runs/first
  PROGRAM images=photos output=photos.h5 runtime=openvino        quicker on a CPU
  PROGRAM images=photos output=photos.h5 views=flip+rotate:90+rotate:180+rotate:270 combine=rows
  PROGRAM 'images=shards/{000..127}.tar' output=photos.h5 engine=ray address=auto
"""

MATCH = """\
Find the best query-reference pairs, write them down, and judge them.

PROGRAM queries=Q.h5 references=R.h5 output=DIR [ground_truth=GT.csv] [num_pairs=N | k=K]
    [training=T.h5 normalize=STEP[:OPTION=VALUE,…][+STEP…]|FILE.json|model]
    [track=descriptor|matching] [index=FACTORY|FOLDER [index_search=nprobe=32]]
    [query_images=DIR reference_images=DIR [candidates=N] [query_views=VIEWS] [second_views=VIEWS]
     [fusion=FILE.json]]
    [calibration=FILE.json|none] [compare=OTHER_RUN] [edits=edits.jsonl] [engine=ray [address=auto]]
PROGRAM submission=FILE.h5|FILE.csv ground_truth=GT.csv output=DIR

Writes into output=: predictions.csv (query_id,reference_id,score; best first, higher = more alike),
submission.h5 (the descriptor track's file), metrics.json (with a ground truth) and report/index.html; views.csv
in place of submission.h5 where images come with several rows (extract.py combine=rows; track=matching).
The score is −(squared Euclidean distance). Without num_pairs= or k= the best 10 × queries pairs are kept.
track=matching with both image folders compares the pixels of each query and its candidates as well; the score is
then the probability that the pair is a copy, evidence.jsonl says where both pictures show the same, and
not_compared.csv which pictures could not be read (docs/matching.md).
Where isc calibrate has fitted a calibration for the model, probabilities.csv gives each pair the probability that
it is a copy, and whether it reaches the cut for the wanted precision (docs/calibration.md).
compare=OTHER_RUN shows what was gained and lost against another run of the same ground truth (comparison.json).
normalize= does its steps from left to right: pca, whiten, subtract, and last score, stretch or ssquare, all fitted
on training= alone. isc normalize search finds the best chain on a validation set, for FILE.json or model.
"""

MATCH_EXAMPLES = """\
  PROGRAM queries=q.h5 references=r.h5 ground_truth=gt.csv output=out
  PROGRAM track=matching queries=q.h5 references=r.h5 query_images=q reference_images=r output=out
  PROGRAM submission=out/predictions.csv ground_truth=gt.csv output=judged
"""

BENCHMARK = """\
Make a benchmark in the challenge's layout out of a folder of photos.

PROGRAM images=DIR output=DIR [preset=easy|challenge|hard|KIND|each] [strength=light|medium|strong]
    [edits=own|augly] [seed=N] [references=N] [training=N] [queries=N] [distractor_share=0.8]
    [hard_negatives=N] [near_duplicates=leave_out|keep|refuse]

Writes into output=: references/, queries/, training/, ground_truth.csv (query_id,reference_id; a distractor's
reference is empty), edits.jsonl (a line a query: its edits with parameters and strength, and where the photo
lies in it), photos.csv, benchmark.json, near_duplicates.csv, and unreadable.csv where photos were left out.
preset=challenge edits each query one to four times, hard three to six times, easy once and lightly; a KIND, such
as crop, does that alone; each gives all kinds and strengths in turn, with equally many copies.
Before anything is made, photos that show the same are found and listed: leave_out keeps one of each group, keep
keeps all, refuse stops. Of the distractor queries hard_negatives are made of photos that look like a reference.
edits=augly takes the edits of AugLy, an outside library that has to be installed (docs/benchmark.md).
The same photos, options and seed give the same files. A run that was broken off goes on where it was.
"""

BENCHMARK_EXAMPLES = """\
  PROGRAM images=photos output=bench
  PROGRAM images=photos output=bench preset=crop strength=strong
  PROGRAM images=photos output=bench preset=each queries=4400 distractor_share=0.5
  PROGRAM images=photos output=bench edits=augly hard_negatives=500
"""

TEXTS = {
    "train": (TRAIN, TRAIN_EXAMPLES),
    "words": (WORDS, WORDS_EXAMPLES),
    "products": (PRODUCTS, PRODUCTS_EXAMPLES),
    "extract": (EXTRACT, EXTRACT_EXAMPLES),
    "match": (MATCH, MATCH_EXAMPLES),
    "benchmark": (BENCHMARK, BENCHMARK_EXAMPLES),
}
