// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"path/filepath"

	"github.com/cilium/ebpf"
)

// SetBank makes new connections go to the proxy's listeners of a bank, 0 or 1. It needs
// no Datapath: it writes the map that is pinned in the folder, which nobody else
// writes, in one step. A node's datapath begins with bank 0 and keeps the bank until
// it is uninstalled. The error is fs.ErrNotExist if the folder has no datapath.
func SetBank(pinDir string, bank int) error {
	return setBank(pinDir, mapBank, 0, bank)
}

// SetSlotBank is SetBank of the proxy in a slot.
func SetSlotBank(pinDir string, slot, bank int) error {
	if slot < 1 || slot > Slots {
		return fmt.Errorf("set bank: there is no slot %d", slot)
	}
	return setBank(pinDir, mapBankOwn, slot-1, bank)
}

func setBank(pinDir, name string, at, bank int) error {
	if bank != 0 && bank != 1 {
		return fmt.Errorf("set bank: there is no bank %d", bank)
	}
	m, err := ebpf.LoadPinnedMap(filepath.Join(pinDir, name), nil)
	if err != nil {
		return fmt.Errorf("set bank: open %s: %w", name, err)
	}
	defer m.Close()
	if err := m.Put(uint32(at), uint32(bank)); err != nil {
		return fmt.Errorf("set bank: write %s: %w", name, err)
	}
	return nil
}

// bank reads which one is in use.
func (o *objects) bank() (int, error) {
	var n uint32
	if err := o.maps[mapBank].Lookup(uint32(0), &n); err != nil {
		return 0, fmt.Errorf("read %s: %w", mapBank, err)
	}
	return int(n), nil
}
