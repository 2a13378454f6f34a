"""Text that Terraform takes as it is."""


def literal(text: str) -> str:
    """`text` with `${` and `%{` doubled: in Terraform's JSON they begin a template, in a shell script a variable."""
    return text.replace("${", "$${").replace("%{", "%%{")
