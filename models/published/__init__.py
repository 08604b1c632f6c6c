"""Published models: how they are written, read, described and checked.

- `export`: start here. Writes SavedModels and loads their Keras models.
- `signatures`, `warmup`: functions behind the signatures; TF Serving's warm-up calls.
- `card`: the model card, written last; `encoder_card`: that of an encoder, read.
- `warm_start`: published weights as the start of another training.
- `parity`: compares the signatures with the Keras models.

The trainers, `models.public_weights`, the components and the serving checks import it.
"""
