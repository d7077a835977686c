// SPDX-License-Identifier: Apache-2.0

package datapath

// BankOffset is how far the proxy's listeners of bank 1 are above those of bank 0. Rows
// have the ports of bank 0, and so have flows and the status.
//
// Two Envoys can listen side by side, one a bank. New connections go to the bank in
// use, or to the other where nobody listens; open ones stay where they are.
const BankOffset = 1000
