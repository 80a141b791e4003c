"""What an installed program has beside the packages: its own name, and one file for `suite`.

`tasks` and `reports` are names that others have, too: of two distributions with a folder of one name, the later one
would write into the earlier one's. So a wheel holds all packages in one folder, `reducerbench/packages`, and they are
found through `reducerbench`.
"""
