"""What the experiments that train share: claims, trainings in quiet seconds, tables in a README."""
