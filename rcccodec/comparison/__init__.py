"""What the codec is compared with, and how the result is shown.

::

    images -> this codec, learned baselines, ECSQ, JPEG, WebP: real files, decoded back -> Curve of Points
    images -> NERD, guarantee, floor, Blahut-Arimoto                                     -> theory, bounds
                                             all of it -> table, JSON, figure, HTML

measured       what one setting of one codec cost and kept, image by image
codec_curve    this codec            learned    CompressAI baselines        pillow_codecs    JPEG and WebP
ecsq           KLT + entropy-coded scalar quantiser                         bounds           Blahut-Arimoto
theory         R(D) of the model on these images, guarantee, floor
bootstrap      intervals over images            bjontegaard   BD-rate, BD-PSNR
results        JSON that CompressAI's plot reads   figure   table   pictures   html_report
provenance, rcc_files      what a run was made with; what is inside a file
"""
