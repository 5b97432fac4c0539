# SPDX-License-Identifier: MIT
#
# Where the feed of LuCI has its own, for this feed alone.

include $(TOPDIR)/feeds/luci/luci.mk
