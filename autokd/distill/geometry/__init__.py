"""Positions on a feature map: pyramid levels, grids of cells, regions of boxes, pooling."""
