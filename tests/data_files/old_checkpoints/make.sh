#!/usr/bin/env bash
# How these checkpoints of format 1 were made: bash make.sh CHECKOUT HOME_FOLDER, with CHECKOUT at commit ded319d.
# Their configs name modules of that commit (faceattr.networks.cnn, faceattr.sources.sample.load).
# predictions.csv is predict.py's answer, resumed.csv the metrics of two epochs and of a third one after resuming.
set -euo pipefail
checkout=$1; home=$2; here=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH=$checkout/src FACEATTR_CACHE=$home/.cache/faceattr OMP_NUM_THREADS=1
python=${PYTHON:-python}
mkdir -p "$home"; cd "$home"
common=(data=sample data.n=60 data.image_size=32 "model.image_size=[32,32]" model.pretrained=false trainer=cpu
        trainer.precision=32 trainer.max_epochs=2 trainer.patience=null optim.schedule=constant)

make() {  # NAME OVERRIDES…
  local name=$1; shift
  "$python" "$checkout/train.py" "${common[@]}" "$@" hydra.run.dir="outputs/$name"
  mkdir -p "$here/$name"
  cp "outputs/$name"/checkpoints/{best,last}.ckpt "outputs/$name"/{test_metrics.json,predictions_test.csv} "$here/$name/"
  "$python" "$checkout/evaluate.py" ckpt="outputs/$name/checkpoints/best.ckpt" split=val hydra.run.dir="outputs/$name-val"
  cp "outputs/$name-val/val_metrics.json" "outputs/$name-val/predictions_val.csv" "$here/$name/"
  "$python" "$checkout/predict.py" ckpt="outputs/$name/checkpoints/best.ckpt" \
    input="$(ls -d .cache/faceattr/sample/*)" hydra.run.dir="outputs/$name-predict"
  sed 's#^[^,]*/##' "outputs/$name-predict/predictions.csv" > "$here/$name/predictions.csv"
  "$python" "$checkout/train.py" ckpt="outputs/$name/checkpoints/last.ckpt" trainer.max_epochs=3
  cut -d, -f"$(head -1 "outputs/$name/metrics.csv" | tr , '\n' | grep -nE '^(epoch|train_loss|val_loss)$' | cut -d: -f1 | paste -sd,)" \
    "outputs/$name/metrics.csv" > "$here/$name/resumed.csv"
}

make cnn model=cnn "model.blocks=[[4],[8]]" evaluate.calibrate=true
make vgg16 model=vgg16 "model.blocks=[[4],[4],[8],[8],[8]]" "model.head.hidden=[16]" finetune=last_block augment=none loss=ce
make multilabel model=cnn "model.blocks=[[4],[8]]" "data.attributes=[Male,Smiling]"
