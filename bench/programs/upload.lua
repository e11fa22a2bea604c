-- Uploads of 1 MiB (wrk's script).
wrk.method = "POST"
wrk.body = string.rep("x", 1048576)
