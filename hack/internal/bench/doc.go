// Package bench loads the order API through its public door, measures it, and checks that no order and no unit of
// stock was lost or made up on the way.
//
// A run brings its own products and customers, so it can be pointed at a system in use. It has three stages:
//
//   - load: orders are posted in a closed loop (a fixed number in flight) or an open one (a fixed rate, latency counted
//     from the moment an order was due, so that a stalled server cannot hide its stall by slowing the client down);
//   - settle: the clock keeps running until every accepted order is final and in its customer's history;
//   - verify: what the API lists is compared with what it answered, with the stock and with the histories.
//
// Given the parts of the system as [Options.Units], it also reports the CPU time of each.
package bench
