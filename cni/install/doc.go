// SPDX-License-Identifier: Apache-2.0

// Package install puts the chained CNI plugin into a node's network configuration, keeps
// it there, and takes it out again.
//
// The configuration is somebody else's. A list of plugins (.conflist) gets one more as its
// last, as text: nothing else of it changes, so that taking it out gives back the same
// bytes. A configuration of one plugin (.conf) cannot hold a second: it is not touched, and
// a list that has it and ours is put before it in the order of names. Such a list is put
// before other lists, too (OwnList): their owners write them anew when the node starts.
package install
