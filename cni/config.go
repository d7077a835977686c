// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"fmt"
	"time"
)

// Type is the plugin's name: that of its file, and in configurations.
const Type = "fairlead-cni"

// Config is the plugin's own part of a network configuration.
type Config struct {
	Type       string     `json:"type"`
	FailClosed FailClosed `json:"failClosed"`
	// Exempt namespaces are never fail-closed: what the cluster needs to come up.
	Exempt []string `json:"exempt"`
	// RunDir is the agent's run folder, as the node sees it.
	RunDir string `json:"runDir"`
	// StateDir is where the agent left what is closed, and outlives the node's start.
	StateDir string `json:"stateDir"`
	// WaitSeconds bounds the wait for an agent.
	WaitSeconds int `json:"waitSeconds"`
	// AgentNamespace is where the message of a pod that may not run says to look.
	AgentNamespace string `json:"agentNamespace,omitempty"`
}

// The defaults of a configuration.
const (
	DefaultRunDir         = "/run/fairlead"
	DefaultWaitSeconds    = 10
	MaxWaitSeconds        = 60 // a runtime gives up after two minutes
	DefaultAgentNamespace = "fairlead-system"
)

// DefaultExempt are the namespaces that are not fail-closed by default: kube-system has
// what pods of every namespace need, and the agent's has what they wait for.
func DefaultExempt() []string { return []string{"kube-system", DefaultAgentNamespace} }

// ParseConfig reads the plugin's part, and says what the runtime was told besides: the
// result of the plugins before, as it stands there.
func ParseConfig(text []byte) (c *Config, previous json.RawMessage, err error) {
	var in struct {
		Config
		PrevResult json.RawMessage `json:"prevResult"`
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return nil, nil, fmt.Errorf("read the network configuration: %w", err)
	}
	c = &in.Config
	if c.FailClosed == "" {
		c.FailClosed = Governed
	}
	if !c.FailClosed.Valid() {
		return nil, nil, fmt.Errorf("failClosed %q: want always, governed or never", c.FailClosed)
	}
	if c.WaitSeconds == 0 {
		c.WaitSeconds = DefaultWaitSeconds
	}
	if c.WaitSeconds < 1 || c.WaitSeconds > MaxWaitSeconds {
		return nil, nil, fmt.Errorf("waitSeconds %d: want 1 to %d", c.WaitSeconds, MaxWaitSeconds)
	}
	if c.Exempt == nil {
		c.Exempt = DefaultExempt()
	}
	if c.RunDir == "" {
		c.RunDir = DefaultRunDir
	}
	if c.StateDir == "" {
		c.StateDir = c.RunDir
	}
	if c.AgentNamespace == "" {
		c.AgentNamespace = DefaultAgentNamespace
	}
	return c, in.PrevResult, nil
}

// Wait bounds the wait for an agent.
func (c *Config) Wait() time.Duration { return time.Duration(c.WaitSeconds) * time.Second }
