"""The Keras peer, as the studies are written: ImageDataGenerator with flow_from_directory, and model.fit.

python -m peers.keras CASE FOLDER EPOCHS        (in benchmarks/)
"""

import os
import sys

from cases import CASES, Case
from epoch_timer import EpochTimer

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from tensorflow.keras import Sequential, layers, optimizers
from tensorflow.keras.applications import VGG16
from tensorflow.keras.applications.vgg16 import preprocess_input
from tensorflow.keras.preprocessing.image import ImageDataGenerator


def build(name: str, case: Case) -> tf.keras.Model:
    shape = (*case.size, 3)
    if name in ("s3", "s4c"):
        widths = (32, 32, 32, 64, 64) if name == "s3" else (32, 64, 128, 128, 128)
        convs = [layer for w in widths for layer in (layers.Conv2D(w, 3, activation="relu"), layers.MaxPooling2D(2))]
        hidden, rate = (64, 0.5) if name == "s3" else (512, 0.3)
        out = layers.Dense(1, activation="sigmoid") if name == "s3" else layers.Dense(3, activation="softmax")
        head = [layers.Flatten(), layers.Dense(hidden, activation="relu"), layers.Dropout(rate), out]
        return Sequential([layers.Input(shape), *convs, *head])
    base = VGG16(weights=None, include_top=False, input_shape=shape)
    if name == "s2":
        for layer in base.layers:
            layer.trainable = layer.name.startswith("block5")
        head = [layers.GlobalAveragePooling2D(), layers.Dense(128, activation="relu"), layers.BatchNormalization()]
        return Sequential([base, *head, layers.Dense(2, activation="softmax")])
    base.trainable = name == "s4f"
    if name == "s4d":
        head = [layers.Dense(256, activation="relu")]
    else:
        head = [layers.Dense(512, activation="relu"), layers.Dropout(0.3), layers.Dense(128, activation="relu")]
        head += [layers.Dropout(0.3), layers.Dense(32, activation="relu")]
    return Sequential([base, layers.Flatten(), *head, layers.Dense(3, activation="softmax")])


class TimeEpochs(tf.keras.callbacks.Callback):
    """`sizes`: the number of images in each batch."""

    def __init__(self, timer: EpochTimer, sizes: list[int]) -> None:
        super().__init__()
        self.timer, self.sizes = timer, sizes

    def on_epoch_begin(self, epoch, logs=None):
        self.timer.start_epoch()

    def on_train_batch_end(self, batch, logs=None):
        self.timer.step(self.sizes[batch])

    def on_epoch_end(self, epoch, logs=None):
        self.timer.end_epoch()


def main(name: str, folder: str, epochs: str) -> None:
    timer, case = EpochTimer(), CASES[name]
    scale = {"preprocessing_function": preprocess_input} if case.scaling == "caffe" else {"rescale": 1 / 255}
    mode = "binary" if name == "s3" else "categorical"
    flow = {"target_size": case.size, "batch_size": case.batch, "class_mode": mode}
    train = ImageDataGenerator(**scale, **case.augment, fill_mode="nearest").flow_from_directory(
        f"{folder}/train", **flow
    )
    val = ImageDataGenerator(**scale).flow_from_directory(f"{folder}/val", **flow)
    optimizer = {"rmsprop": optimizers.RMSprop, "adam": optimizers.Adam}[case.optimizer](case.lr)
    model = build(name, case)
    model.compile(optimizer=optimizer, loss=f"{mode}_crossentropy", metrics=["accuracy"])
    sizes = [min(case.batch, train.samples - start) for start in range(0, train.samples, case.batch)]
    model.fit(train, epochs=int(epochs), validation_data=val, callbacks=[TimeEpochs(timer, sizes)], verbose=0)
    versions = {"tensorflow": tf.__version__, "keras": tf.keras.__version__}
    timer.print_json(parameters=model.count_params(), versions=versions)


if __name__ == "__main__":
    main(*sys.argv[1:])
