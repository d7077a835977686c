// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/bpf"
)

// objects are the loaded programs and maps by name.
type objects struct {
	programs map[string]*ebpf.Program
	attach   map[string]ebpf.AttachType
	maps     map[string]*ebpf.Map
}

// load loads the programs with the maps that are pinned in dir; those that are not
// there are made. A pinned map keeps its size, but for that of counters.
func load(dir string, sizes map[string]uint32) (*objects, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("load BPF programs: %w", err)
	}
	o := &objects{programs: map[string]*ebpf.Program{}, attach: map[string]ebpf.AttachType{}, maps: map[string]*ebpf.Map{}}
	for _, spec := range []func() (*ebpf.CollectionSpec, error){bpf.LoadSock, bpf.LoadNet} {
		s, err := spec()
		if err == nil {
			err = o.add(s, dir, sizes)
		}
		if err != nil {
			o.close()
			return nil, fmt.Errorf("load BPF programs: %w", err)
		}
	}
	return o, nil
}

func (o *objects) add(s *ebpf.CollectionSpec, dir string, sizes map[string]uint32) error {
	for name, m := range s.Maps {
		if m.Pinning != ebpf.PinByName {
			continue
		}
		if n := sizes[name]; n != 0 {
			m.MaxEntries = n
		}
		n, err := pinnedSize(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if n != 0 && n < m.MaxEntries && name == mapCounters {
			// An earlier release has fewer reasons. Its programs count in its map until
			// they are replaced; counting begins anew.
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return fmt.Errorf("make room for reasons: %w", err)
			}
			n = 0
		}
		if n != 0 {
			m.MaxEntries = n
		}
	}
	c, err := ebpf.NewCollectionWithOptions(s, ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: dir}})
	if err != nil {
		return err
	}
	for name, p := range c.Programs {
		o.programs[name] = p
		o.attach[name] = s.Programs[name].AttachType
	}
	for name, m := range c.Maps {
		if had := o.maps[name]; had != nil {
			_ = m.Close() // a second descriptor of the same map
			continue
		}
		o.maps[name] = m
	}
	return nil
}

func (o *objects) close() {
	for _, p := range o.programs {
		_ = p.Close() // links hold what is in use
	}
	for _, m := range o.maps {
		_ = m.Close() // pins hold what is in use
	}
}

func pinnedSize(file string) (uint32, error) {
	m, err := ebpf.LoadPinnedMap(file, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("open pinned map %s: %w", file, err)
	}
	n := m.MaxEntries()
	return n, m.Close()
}

// makePinDir makes the folder for pins; its parent must be on a BPF file system.
func makePinDir(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, linkDir), 0o700); err != nil {
		return fmt.Errorf("make folder for pins: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("make folder for pins: %s: %w", dir, err)
	}
	if uint32(st.Type) != unix.BPF_FS_MAGIC {
		// Leave no folders where they are of no use.
		_ = os.Remove(filepath.Join(dir, linkDir))
		_ = os.Remove(dir)
		return fmt.Errorf("make folder for pins: %s is not on a BPF file system (mount -t bpf bpf /sys/fs/bpf)", dir)
	}
	return nil
}
