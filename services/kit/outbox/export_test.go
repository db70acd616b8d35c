package outbox

// Oldest lets tests make ids of any time.
var Oldest = oldest
