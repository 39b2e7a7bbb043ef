"""The persisted nouns, as frozen structs, and the parser of the job language."""
