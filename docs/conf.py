"""How Sphinx builds the site; `make docs` calls it.

The environment variable GALLERY names the tiers of the gallery to be run: "all", or "start"
for the first one alone; GALLERY_JOBS how many scripts run at a time.
"""

import os
import re
import shutil
from pathlib import Path

from advfeat import __version__

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
RESULTS = "results"  # the pages of benchmarks/results, copied there

project = "advfeat"
author = "the advfeat developers"
copyright = author  # noqa: A001, the name that Sphinx reads
version = release = __version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates", "gallery/**/*.ipynb", "**/GALLERY_HEADER.rst"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["config.cache"]  # sphinx-gallery's settings hold functions
nitpicky = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

autosummary_generate = True
toc_object_entries_show_parents = "hide"
autodoc_typehints = "none"  # numpydoc's sections say more
autodoc_default_options = {"exclude-members": "__init__"}
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "pydata_sphinx_theme"
html_title = f"advfeat {version}"
html_theme_options = {
    "show_toc_level": 2,
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_sidebars = {page: [] for page in ("paper", "speed", "glossary", "changelog", "contributing")}
html_show_sourcelink = False

GALLERY = os.environ.get("GALLERY", "all")
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "ignore_pattern": r"distributed_training\.py",  # started by torchrun
    "filename_pattern": r"/plot_" if GALLERY == "all" else r"/1_start_here/plot_",
    "subsection_order": ["../examples/1_start_here", "../examples/2_going_further",
                         "../examples/3_paper_and_debate"],
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "api/backreferences",
    "doc_module": ("advfeat",),
    "parallel": int(os.environ.get("GALLERY_JOBS", "2")),
    "show_memory": False,
    "show_signature": False,
    "remove_config_comments": True,
    "min_reported_time": 60,
    "abort_on_example_error": False,
    "image_srcset": [],
    "download_all_examples": False,
    "plot_gallery": "True",
}  # fmt: skip


def copy_results(app):
    """Copy the pages of results and their pictures into the site's sources."""
    target = DOCS / RESULTS
    wanted = {}
    for source in sorted((ROOT / "benchmarks" / "results").rglob("*")):
        if source.suffix in {".md", ".png"}:
            wanted[target / source.relative_to(ROOT / "benchmarks" / "results")] = source
    if target.exists():
        for old in target.rglob("*.*"):
            if old not in wanted:
                old.unlink()
    for path, source in wanted.items():
        if path.exists() and path.stat().st_mtime >= source.stat().st_mtime:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, path)


def remove_stale(app):
    """Remove the pages that earlier builds made of scripts and names that are gone."""
    for page in (DOCS / "gallery").glob("*/plot_*.rst"):
        if not (ROOT / "examples" / page.parent.name / f"{page.stem}.py").exists():
            page.unlink()
    names = (DOCS / "api.rst").read_text(encoding="utf-8").split()
    for page in (DOCS / "api").glob("*.rst"):
        if page.stem.split(".")[-1] not in names:
            page.unlink()


def rewrite_links(app, name, content):
    """Point links between the repository's files at the site's pages."""
    text = content[0]
    if name == f"{RESULTS}/README":
        text = text.replace("](../../docs/", "](../")
        text += "\n```{toctree}\n:hidden:\n:glob:\n\n*/README\n*/*/README\n```\n"
    if name.startswith(RESULTS + "/"):
        text = re.sub(r"\]\(((?:\.\./)*)([\w/-]*)(table\.csv|results\.json)\)", r"]", text)
    text = text.replace("](../benchmarks/results/", f"]({RESULTS}/")
    text = re.sub(r"\]\((?:\.\./)*docs/", "](", text)
    content[0] = text


def setup(app):
    """Register the three steps above."""
    app.connect("builder-inited", copy_results, priority=1)
    app.connect("builder-inited", remove_stale, priority=1)
    app.connect("source-read", rewrite_links)
