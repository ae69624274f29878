-- What the sources of an attempt really were: the commit ids of source and ci_source, each empty where there is none.
ALTER TABLE attempts ADD COLUMN source_commit TEXT NOT NULL DEFAULT '';
ALTER TABLE attempts ADD COLUMN ci_source_commit TEXT NOT NULL DEFAULT '';
