"""The words of reports: labels, headings, markup."""
