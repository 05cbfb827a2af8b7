"""What a bidder gains from a report, and the gradient by the report, without automatic differentiation.

A search for misreports asks a network whose weights stand still tens of times about the same profiles, in which one
bidder's report moves. Networks of this size take microseconds per operation, as much as torch needs to begin one and to
record it. So here the derivatives are written out, layer by layer, and only for what moves and matters: the other
bids enter once, no weight has a gradient, and of allocation and payments only the deviating bidder's are asked for.

Numbers lie in memory that is used again in every step, channels first and profiles last, [c, n, m, B], so that
whatever combines channels, bidders or items adds long rows. Each library does what it does faster: torch products of
matrices, which keep to the run's threads, and what is broadcast; NumPy what is small, for its calls cost a third, and
hyperbolic tangents, which take it a seventh of the time.

Results are those of the networks' own modules up to rounding.
"""
