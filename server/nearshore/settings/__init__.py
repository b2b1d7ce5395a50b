"""Settings. Only `app`, what makes its parts, and `cli` read them; other layers get plain values.

Order of precedence: command-line flags, environment (NEARSHORE_SERVER__PORT=...), configuration file (TOML), defaults.
"""

from nearshore.settings.embedding import EmbeddingSettings
from nearshore.settings.loading import load_settings
from nearshore.settings.model import IndexSettings, Settings, setting_names, variable_of

__all__ = ["EmbeddingSettings", "IndexSettings", "Settings", "load_settings", "setting_names", "variable_of"]
