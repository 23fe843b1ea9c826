"""Batches composed on the training device from single crops and photographs, each drawn anew (ADR 0014).

`material` reads the prepared set into `textures`, `views` says where what lies on a canvas, `chances` which face comes
how often, `appearance` changes colour and quality, `empty` draws what holds no face, `composer` puts it all together,
and `loader` hands the batches to a training loop. All randomness is of one seed, see `draws`.
"""
