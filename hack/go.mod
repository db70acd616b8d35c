module orderflow.internal/hack

go 1.26.0

require orderflow.internal v0.0.0

replace orderflow.internal => ../services
