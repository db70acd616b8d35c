// Package labs is hack/lab: each lab takes one guarantee away, breaks something, and shows in numbers what that costs
// and that it costs nothing with the guarantee.
//
// A guarantee goes by its edit of hack/mutations.txt, in the one service that is compiled with it (go build -overlay).
// No branch and no build tag in the code does it, so no other program can have it by mistake, and the edit is the one
// that the entry's test is proven to notice.
package labs

import "context"

// Lab is one guarantee taken away.
type Lab struct {
	Name      string // also of its page, docs/labs/<name>.md
	Guarantee string // an entry of hack/mutations.txt
	Service   string // that is built without it
	Fault     string // what happens, with and without
	Watch     string // where to see it

	env   map[string]map[string]string // by service
	fault func(ctx context.Context, t *trial) error
}

// All are the labs in the order in which to do them.
var All = []Lab{
	{
		Name: "outbox", Service: "orders", Guarantee: "An order and its OrderCreated commit together",
		Fault: "The broker is away for a moment while orders are placed, and orders is killed before it is back.",
		Watch: "the orders: they stay Pending, and their journeys stop at the first step",
		fault: crashBeforePublishing,
	},
	{
		Name: "confirms", Service: "orders", Guarantee: "An event counts as published when the broker has confirmed it",
		Fault: "The network swallows what orders sends to the broker, then the connection breaks.",
		Watch: "the outbox of orders: every event has a published_at",
		fault: swallowedPublishes,
	},
	{
		Name: "mandatory", Service: "products", Guarantee: "An event that no queue takes is refused",
		Fault: "Somebody deletes the binding of orders.stock.reserved, and restores it.",
		Watch: "the bindings of orders.exchange in RabbitMQ's management UI, and the outbox of products",
		fault: missingBinding,
	},
	{
		Name: "acknowledge", Service: "products", Guarantee: "A message is acknowledged after its handler has committed",
		Fault: "products is killed in the middle of a transaction, three times.",
		Watch: "the queue products.order.created: empty, and nothing was reserved",
		fault: crashInATransaction,
	},
	{
		Name: "redelivery", Service: "products", Guarantee: "Stock is reserved once",
		Fault: "Every event arrives twice: orders republish sends them again.",
		Watch: "the product: more is reserved than was ordered",
		fault: everythingTwice,
	},
	{
		Name: "version", Service: "customers", Guarantee: "The higher version decides the state",
		Fault: "The OrderCreated of each order arrives after its OrderConfirmed.",
		Watch: "the customer's history beside the orders themselves",
		fault: createdComesLate,
	},
	{
		Name: "tombstone", Service: "products", Guarantee: "A cancellation leaves a mark for an order that is not there yet",
		Fault: "Orders are cancelled, and products hears of that before it hears of the orders.",
		Watch: "the product: stock that nobody has bought, and nobody can buy",
		fault: cancelledComesFirst,
	},
	{
		Name: "idempotency-key", Service: "orders", Guarantee: "The same idempotency key always returns the same order",
		Fault: "The connection of each client breaks before the answer is there, and it tries again with the same key.",
		Watch: "the customer's list of orders",
		fault: lostAnswers,
	},
	{
		Name: "poison", Service: "products", Guarantee: "A message that fails holds up nobody",
		Fault: "One message cannot be handled. Orders are placed behind it.",
		Watch: "the queue products.order.created: everything in it is with a consumer that does nothing",
		fault: poisonInFront,
	},
	{
		Name: "retry-delay", Service: "products", Guarantee: "A failed message waits before it comes again",
		Fault: "Three orders of twenty fail in products for a second: a constraint of its database refuses them.",
		Watch: "the queue products.order.created.dlq",
		fault: fewFail,
	},
	{
		Name: "breaker", Service: "products", Guarantee: "When every message fails, a breaker opens",
		Fault: "products comes back to all orders, and all fail for a second. (Delays between retries are 0, so that this " +
			"takes no minutes.)",
		Watch: "the queue products.order.created.dlq",
		env:   map[string]map[string]string{"products": {"BUS_RETRY_DELAY": "0"}},
		fault: allFail,
	},
	{
		Name: "deadline", Service: "orders", Guarantee: "A deadline that passes while nobody looks is not forgotten",
		Fault: "products is away, and orders is killed and comes back after the deadline of its orders.",
		Watch: "the orders: without an answer, they should be Cancelled",
		env:   map[string]map[string]string{"orders": {"ORDER_DEADLINE": deadline.String()}},
		fault: crashAcrossTheDeadline,
	},
}
