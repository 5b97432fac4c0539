# SPDX-License-Identifier: MIT
#
# Where the feed of packages has its own, and for this feed alone: it is a part of the tree that it builds, and downloads
# nothing but what Cargo.lock names. With net/net-pulse alone, in the feed of packages, it is the release that is built.

NET_PULSE_TREE:=$(CURDIR)/../../..
# .cargo has what SQLite is built with, and cargo install --path heeds it.
PKG_FILE_DEPENDS:=$(addprefix $(NET_PULSE_TREE)/,.cargo Cargo.lock Cargo.toml LICENSE README.md build.rs src www)
PKG_SKIP_DOWNLOAD:=1

define Build/Prepare
	$(INSTALL_DIR) $(PKG_BUILD_DIR)
	$(CP) $(PKG_FILE_DEPENDS) $(PKG_BUILD_DIR)/
endef

include $(TOPDIR)/feeds/packages/lang/rust/rust-package.mk
