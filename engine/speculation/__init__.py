"""Tokens proposed before the model was asked.

proposer.py       what every source of drafts has in common
config.py         how drafts are made and verified, as plain data
forced.py         text that the grammar leaves no choice about
ngram.py          what followed the same words earlier, by suffix_index.py
prediction.py     an answer that somebody expects
draft_model.py    a smaller model, over pages of its own
draft.py          the nodes of a draft, growing.py a request's draft while it grows
speculator.py     gives the requests of a step their drafts: draft_writer.py, model_rounds.py
controller.py     decides what pays: acceptance.py, outlook.py, surcharge.py
"""
