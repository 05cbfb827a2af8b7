"""Learn revenue-maximising multi-item auctions under an explicit regret budget.

The paper: Ivanov, Safiulin, Filippov, Balabaeva, "Optimal-er Auctions through Attention", NeurIPS 2022
(arXiv 2202.13110). Import from the modules; importing this package alone imports nothing heavy.
"""
