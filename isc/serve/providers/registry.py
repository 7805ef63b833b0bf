"""The registry: provider objects from the settings, by a built-in name or a class's place."""

from __future__ import annotations

import inspect
import pkgutil
from typing import Any

from isc.errors import InputError
from isc.serve.providers.base import AnyProvider, LaterProvider, Provider
from isc.serve.providers.context import Context
from isc.serve.settings import ProviderSettings

BUILT_IN = {
    "copy": "isc.serve.providers.copies:CopyProvider",
    "pdq": "isc.serve.providers.hashes:PdqProvider",
    "caption": "isc.serve.providers.captions:CaptionProvider",
    "product": "isc.serve.providers.products:ProductProvider",
    "quality": "isc.serve.providers.quality:QualityProvider",
    "objects": "isc.serve.providers.packages:ObjectProvider",
    "unsafe": "isc.serve.providers.packages:UnsafeProvider",
    "text": "isc.serve.providers.packages:TextProvider",
    "vision": "isc.serve.providers.vision:VisionProvider",
    "http": "isc.serve.providers.mapping:MappingProvider",
    "callback": "isc.serve.providers.callback:CallbackProvider",
}


def build(settings: ProviderSettings, context: Context) -> AnyProvider:
    """Return the provider of these settings; its class gets the options as keywords, and `context` if it asks for it.

    Raises InputError for a class that is not there, is no provider, or takes no such option.
    """
    made = _class_of(settings)
    options: dict[str, Any] = dict(settings.options)
    if "context" in inspect.signature(made).parameters:
        options["context"] = context
    try:
        provider: AnyProvider = made(**options)
    except TypeError as error:
        raise InputError(f"provider {settings.name}: {error}; see docs/serve.md for its options") from error
    if not provider.version or len(provider.version) > 150:
        raise InputError(f"provider {settings.name}: version {provider.version!r:.60}; expected 1 to 150 characters")
    if not provider.group:
        provider.group = settings.name
    return provider


def _class_of(settings: ProviderSettings) -> type[AnyProvider]:
    place = BUILT_IN.get(settings.use, settings.use)
    module, _, name = place.partition(":")
    if not name:
        known = ", ".join(BUILT_IN)
        raise InputError(f"provider {settings.name}: use={settings.use!r}; expected {known}, or package.module:Class")
    try:
        found = pkgutil.resolve_name(f"{module}:{name}")
    except (ImportError, AttributeError) as error:
        raise InputError(f"provider {settings.name}: {place} is not there ({error})") from error
    if not (inspect.isclass(found) and issubclass(found, Provider | LaterProvider)):
        raise InputError(f"provider {settings.name}: {place} is no subclass of Provider or LaterProvider")
    return found
