"""The rules of cleaning, a file per kind; `nacre.data.clean` holds their catalogue."""
