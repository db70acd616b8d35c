package main

const apiPrefix = "/api"

func main() {}
