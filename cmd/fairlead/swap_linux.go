// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/agent/swap"
	"fairlead.io/fairlead/lab"
)

// labPlace is the folder of a lab, which is written by applying to the lab.
type labPlace struct {
	folderPlace
	name string
}

// newLabPlace finds the folder that the lab's agents read, and their run folders.
func newLabPlace(ctx context.Context, name, namespace string) (*labPlace, error) {
	runs, err := lab.RunDirs(name)
	if err != nil {
		return nil, err
	}
	if len(runs) == 0 {
		return nil, fmt.Errorf("lab %s has no nodes", name)
	}
	st, err := agent.NewClient(runs[0] + "/" + agent.Socket).Status(ctx)
	if err != nil {
		return nil, err
	}
	return &labPlace{folderPlace{folder: st.Source, namespace: namespace, runs: runs}, name}, nil
}

func (p *labPlace) write(ctx context.Context, from, plane string) error {
	text, err := os.ReadFile(p.file)
	if err != nil {
		return err
	}
	edited, err := swap.ChangeOwner(text, p.namespace, from, plane)
	if err != nil {
		return err
	}
	_, err = lab.Apply(ctx, lab.Change{Name: p.name, Files: []string{"-"}, Stdin: bytes.NewReader(edited)})
	return err
}

func (p *labPlace) flags() string { return "--lab " + p.name }
