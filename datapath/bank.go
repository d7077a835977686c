// SPDX-License-Identifier: Apache-2.0

package datapath

// BankOffset is how far the proxy's listeners of bank 1 are above those of bank 0. Rows
// have the ports of bank 0, and so have flows and the status.
//
// Two Envoys can listen side by side, one a bank. New connections go to the bank in
// use, or to the other where nobody listens; open ones stay where they are.
const BankOffset = 1000

// Slots are for proxies that namespaces have of their own: each has SlotPorts ports, and a
// bank in use that is its own.
const (
	Slots     = 9
	SlotPorts = 100
	slotFirst = 17100
)

// SlotPort is the first port of a slot, which is from 1 to Slots.
func SlotPort(slot int) uint16 { return uint16(slotFirst + (slot-1)*SlotPorts) }
