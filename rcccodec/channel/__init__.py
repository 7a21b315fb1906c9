"""The channel room: which candidate a block is sent as.

log_weights         W_i of PFR and ORC
select_channel      exact channel simulation (PFR, ORC)
select_with_cost    min-cost with one length per index
best_per_class, select_mincost     min-cost with one length per index class
candidates_at       the decoder's side: make the chosen candidates alone
"""

from rcccodec.channel.classes import MinCostChoice, best_per_class, select_mincost
from rcccodec.channel.distances import candidates_at, squared_distances
from rcccodec.channel.search import Selection, select_channel, select_with_cost
from rcccodec.channel.weights import Coder, log_weights

__all__ = [
    "Coder",
    "MinCostChoice",
    "Selection",
    "best_per_class",
    "candidates_at",
    "log_weights",
    "select_channel",
    "select_mincost",
    "select_with_cost",
    "squared_distances",
]
