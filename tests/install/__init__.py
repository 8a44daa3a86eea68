"""The installer: real sh, real environments, a throw-away home and root; programs that record stand for the init."""
