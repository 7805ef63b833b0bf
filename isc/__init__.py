"""Find edited copies of known photos.

    import isc

    isc.compare("a.jpg", "b.jpg")                  # probability, distance, region, verdict
    index = isc.Index("photos.index")
    index.add("photos")
    index.find("suspect.jpg")
    isc.find_duplicates("photos")
    model = isc.load()                             # isc_small
    a, b = model.embed(["a.jpg", "b.jpg"])

Importing the package is cheap: libraries are loaded by the function that needs them.
"""

import lazy_loader

__version__ = "0.3.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
