"""The channel room: which candidate a block is sent as.

log_weights         W_i of PFR and ORC
select_channel      exact channel simulation (PFR, ORC)
select_with_cost    min-cost with one length per index
channel_target, cost_target    what these two search for; `select` serves several targets in one pass
nominate, merge, decide        the halves of a search: candidates in ranges, anywhere; then the choice
best_per_class, select_mincost     min-cost with one length per index class
candidates_at       the decoder's side: make the chosen candidates alone
"""

from rcccodec.channel.classes import MinCostChoice, best_per_class, select_mincost
from rcccodec.channel.distances import candidates_at, squared_distances
from rcccodec.channel.nominees import Nominees, merge
from rcccodec.channel.search import Selection, decide, nominate, select, select_channel, select_with_cost
from rcccodec.channel.target import Target, channel_target, cost_target
from rcccodec.channel.weights import Coder, log_weights

__all__ = [
    "Coder",
    "MinCostChoice",
    "Nominees",
    "Selection",
    "Target",
    "best_per_class",
    "candidates_at",
    "channel_target",
    "cost_target",
    "decide",
    "log_weights",
    "merge",
    "nominate",
    "select",
    "select_channel",
    "select_mincost",
    "select_with_cost",
    "squared_distances",
]
